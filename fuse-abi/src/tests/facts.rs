//! What a description of the protocol says, as lines that can be compared: our tables and a C header in one form.
//!
//! `struct S` is followed by the size; `field S.f` by offset, size and kind (`u` unsigned, `i` signed, `s` struct);
//! `tail S.f`, an array of unknown length, by its offset; `value C` by the number.

use core::mem::offset_of;
use std::collections::BTreeMap;
use std::format;
use std::string::{String, ToString};

use bitflags::Flags;

use crate::wire::{Field, Layout};
use crate::*;

/// Facts by what they are about.
pub type Facts = BTreeMap<String, String>;

/// Reads lines of facts.
pub fn parse(text: &str) -> Facts {
    let fact = |line: &str| {
        let mut words = line.splitn(3, ' ');
        let mut word = || words.next().unwrap_or_else(|| panic!("not a fact: {line}")).to_string();
        (word() + " " + &word(), word())
    };
    text.lines().map(fact).collect()
}

/// What our tables say.
pub fn ours() -> Facts {
    let mut facts = Facts::new();
    structs(&mut facts);
    for constants in [
        compat::CONSTANTS,
        device::CONSTANTS,
        directory::CONSTANTS,
        extensions::CONSTANTS,
        header::CONSTANTS,
        init::CONSTANTS,
        opcodes::CONSTANTS,
        requests::CONSTANTS,
    ] {
        for &(name, number) in constants {
            value(&mut facts, name, number);
        }
    }
    value(&mut facts, "FUSE_REMOVEMAPPING_MAX_ENTRY", removemapping_max_entry(4096) as u64);
    codes(&mut facts);
    all_flags(&mut facts);
    facts
}

fn structs(facts: &mut Facts) {
    for layouts in [
        attributes::LAYOUTS,
        device::LAYOUTS,
        directory::LAYOUTS,
        extensions::LAYOUTS,
        header::LAYOUTS,
        init::LAYOUTS,
        notify::LAYOUTS,
        replies::LAYOUTS,
        requests::LAYOUTS,
    ] {
        for layout in layouts {
            facts.insert(format!("struct {}", layout.c_name), layout.size.to_string());
            layout.fields.iter().for_each(|field| insert_field(facts, layout, field));
        }
    }
    for (tail, offset) in [
        ("tail fuse_dirent.name", size_of::<Dirent>()),
        ("tail fuse_supp_groups.groups", size_of::<SuppGroups>()),
        // A union in C: our struct has its larger half, functions the other.
        ("field fuse_uring_cmd_req.ent_zero_copy_buf_index", offset_of!(UringCmdReq, bufpool)),
        ("field fuse_uring_cmd_req.bufpool.uaddr", offset_of!(UringCmdReq, bufpool.uaddr)),
        ("field fuse_uring_cmd_req.bufpool.len", offset_of!(UringCmdReq, bufpool.len)),
        ("field fuse_uring_cmd_req.bufpool.reserved", offset_of!(UringCmdReq, bufpool.reserved)),
    ] {
        let size = match tail {
            tail if tail.starts_with("tail") => "",
            tail if tail.ends_with("buf_index") => " 2 u",
            tail if tail.ends_with("uaddr") => " 8 u",
            _ => " 4 u",
        };
        facts.insert(tail.to_string(), format!("{offset}{size}"));
    }
}

fn insert_field(facts: &mut Facts, layout: &Layout, field: &Field) {
    let element = field.ty.trim_start_matches('[');
    let kind = element.chars().next().filter(char::is_ascii_lowercase).unwrap_or('s');
    let name = field.name.trim_start_matches("r#");
    let place = format!("{} {} {kind}", field.offset, field.size);
    facts.insert(format!("field {}.{name}", layout.c_name), place);
}

fn value(facts: &mut Facts, name: &str, number: u64) {
    let before = facts.insert(format!("value {name}"), number.to_string());
    assert_eq!(before, None, "{name} is described twice");
}

fn codes(facts: &mut Facts) {
    Opcode::ALL.iter().for_each(|code| value(facts, code.name(), code.number().into()));
    NotifyCode::ALL.iter().for_each(|code| value(facts, code.name(), code.number().into()));
    UringCmd::ALL.iter().for_each(|code| value(facts, code.name(), code.number().into()));
}

fn flags<F: Flags<Bits: Into<u64>>>(facts: &mut Facts, prefix: &str) {
    for flag in F::FLAGS {
        // A name that begins with a digit has an underscore before it here.
        let name = format!("{prefix}{}", flag.name().trim_start_matches('_'));
        value(facts, &name, flag.value().bits().into());
    }
}

fn all_flags(facts: &mut Facts) {
    flags::<InitFlags>(facts, "FUSE_");
    flags::<CuseInitFlags>(facts, "CUSE_");
    flags::<SetattrValid>(facts, "FATTR_");
    flags::<OpenOutFlags>(facts, "FOPEN_");
    flags::<OpenInFlags>(facts, "FUSE_OPEN_");
    flags::<ReleaseFlags>(facts, "FUSE_RELEASE_");
    flags::<GetattrFlags>(facts, "FUSE_GETATTR_");
    flags::<LkFlags>(facts, "FUSE_LK_");
    flags::<WriteFlags>(facts, "FUSE_WRITE_");
    flags::<ReadFlags>(facts, "FUSE_READ_");
    flags::<IoctlFlags>(facts, "FUSE_IOCTL_");
    flags::<PollFlags>(facts, "FUSE_POLL_");
    flags::<FsyncFlags>(facts, "FUSE_FSYNC_");
    flags::<AttrFlags>(facts, "FUSE_ATTR_");
    flags::<SetxattrFlags>(facts, "FUSE_SETXATTR_");
    flags::<InvalEntryFlags>(facts, "FUSE_");
    flags::<SetupmappingFlags>(facts, "FUSE_SETUPMAPPING_FLAG_");
    flags::<UringEntFlags>(facts, "FUSE_URING_ENT_");
    flags::<UringQueueFlags>(facts, "FUSE_URING_");
}
