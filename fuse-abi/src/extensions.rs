//! What may follow a request that creates: security contexts and groups, `total_extlen` units of eight bytes in all.

use crate::wire::{constants, structs};

constants! {
    MAX_NR_SECCTX: u32 = 31, FUSE_MAX_NR_SECCTX, "The most contexts; a larger `type` of [`ExtHeader`] is no context.";
    EXT_GROUPS: u32 = 32, FUSE_EXT_GROUPS, "The `type` of an extension that is [`SuppGroups`].";
}

structs! {
    /// What an extension begins with.
    ExtHeader = fuse_ext_header {
        size: u32, "Bytes of the extension, this header included.";
        r#type: u32, "[`EXT_GROUPS`], or up to [`MAX_NR_SECCTX`] when it is a [`SecctxHeader`].";
    }

    /// What the security contexts begin with.
    SecctxHeader = fuse_secctx_header {
        size: u32, "Bytes of all contexts, this header included.";
        nr_secctx: u32, "How many follow.";
    }

    /// One security context; its name, ended by a zero byte, and `size` bytes of the context follow.
    Secctx = fuse_secctx {
        size: u32, "Bytes of the context.";
        padding: u32, "Unused.";
    }

    /// The supplementary groups of the caller; `nr_groups` numbers of 32 bits follow.
    SuppGroups = fuse_supp_groups {
        nr_groups: u32, "How many follow.";
    }
}
