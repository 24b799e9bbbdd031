//! What management tools read to learn what the program can do.

/// The answer to `--print-capabilities`, in the form of vhost-user.json.
pub const DESCRIPTION: &str = r#"{
  "type": "fs",
  "features": [
    "posix-acl-negotiation-mode",
    "security-label-negotiation-mode",
    "separate-options"
  ]
}
"#;

#[cfg(test)]
mod tests {
    use super::*;

    /// The strings of a JSON text, in order; enough to compare two of the same shape.
    fn strings(json: &str) -> Vec<&str> {
        json.split('"').skip(1).step_by(2).collect()
    }

    #[test]
    fn the_file_for_libvirt_lists_the_features_that_the_program_prints() {
        let file = include_str!("../../packaging/50-ferryfs.json");
        let features = |json| strings(json).into_iter().skip_while(|text| *text != "features").collect::<Vec<_>>();
        assert_eq!(features(file), features(DESCRIPTION));
        assert!(features(file).len() > 1);
    }
}
