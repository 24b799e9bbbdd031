//! What tells management tools of the program: the file that libvirt reads, and `--print-capabilities`.
//!
//! The form is that of `docs/interop/vhost-user.json` in QEMU: `description`, `type` and `binary`, with an optional list
//! `tags`; capabilities have a `type` and, for every type that has any, a list `features`.

use std::process::Command;

use serde_json::Value;

use crate::support::{Share, program};

/// Each feature with options that it promises.
const FEATURES: [(&str, &[&str]); 3] = [
    ("posix-acl-negotiation-mode", &["--posix-acl=never", "--posix-acl=auto", "--posix-acl=always"]),
    (
        "security-label-negotiation-mode",
        &["--security-label=never", "--security-label=auto", "--security-label=always"],
    ),
    (
        "separate-options",
        &["--sandbox=chroot", "--xattr", "--cache=always", "--thread-pool-size=2", "--inode-file-handles=prefer"],
    ),
];

fn features(described: &Value) -> Vec<&str> {
    described["features"].as_array().unwrap().iter().map(|feature| feature.as_str().unwrap()).collect()
}

#[test]
fn the_file_for_libvirt_has_the_form_that_qemu_describes() {
    let file: Value = serde_json::from_str(include_str!("../../packaging/50-ferryfs.json")).unwrap();
    let members = file.as_object().unwrap();
    assert!(members["description"].as_str().is_some_and(|text| !text.is_empty()));
    assert_eq!(members["type"], "fs");
    assert!(members["binary"].as_str().is_some_and(|path| path.starts_with('/') && !path.ends_with('/')));
    if let Some(tags) = members.get("tags") {
        assert!(tags.as_array().unwrap().iter().all(Value::is_string));
    }
    let known = ["description", "type", "binary", "tags", "features"];
    assert!(members.keys().all(|key| known.contains(&key.as_str())), "{members:?}");
    assert_eq!(features(&file), FEATURES.map(|(name, _)| name));
}

#[test]
fn the_program_prints_its_capabilities_and_has_them() {
    let output = Command::new(program()).arg("--print-capabilities").output().unwrap();
    assert!(output.status.success() && output.stderr.is_empty());
    let printed: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(printed["type"], "fs");
    assert_eq!(features(&printed), FEATURES.map(|(name, _)| name));
    for (_, options) in FEATURES {
        for option in options {
            if !crate::support::is_root() && *option == "--sandbox=chroot" {
                continue;
            }
            let mut share = Share::new(&[option]);
            drop(share.client());
        }
    }
}
