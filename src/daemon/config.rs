//! What the command line says of the file system, as the file system takes it.

use std::ffi::CString;

use super::{error::Error, limits::DescriptorBudget, options::FileSystemOptions, values::CacheMode};
use crate::passthrough::{
    config::{Config, Negotiation},
    idmap::IdMap,
    xattr_map::XattrMap,
};
use crate::protocol::Name;

impl FileSystemOptions {
    /// Whether the options make sense, by themselves and together: said before anything else is done.
    pub(super) fn check(&self) -> Result<(), Error> {
        let translates = !self.translate_uid.is_empty() || !self.translate_gid.is_empty();
        if self.posix_acl != Negotiation::Never && translates {
            return Err(Error::usage(
                "--translate-uid and --translate-gid would break POSIX ACLs: leave out --posix-acl",
            ));
        }
        if self.notify && self.cache != CacheMode::Coherent {
            return Err(Error::usage("--notify tells a guest what it believes wrongly: add --cache=coherent"));
        }
        self.config(DescriptorBudget::none(), false).map(drop)
    }

    /// The file system's own options. `contained` says that the process sees nothing but the share.
    ///
    /// # Errors
    /// A usage error for rules that do not parse.
    pub fn config(&self, descriptors: DescriptorBudget, contained: bool) -> Result<Config, Error> {
        let xattr_map = match &self.xattrmap {
            Some(rules) => XattrMap::parse(rules).map_err(|error| usage("xattrmap", &error))?,
            None => XattrMap::default(),
        };
        let id_map = |name: &str, rules: &[String]| {
            IdMap::parse(rules.iter().map(String::as_str)).map_err(|error| usage(name, &error))
        };
        let mut config = Config {
            xattr: self.xattr(),
            posix_acl: self.posix_acl,
            xattr_map,
            read_only: self.readonly,
            writeback: self.writeback,
            allow_direct_io: self.allow_direct_io,
            allow_mmap: self.allow_mmap,
            readdirplus: self.readdirplus(),
            uid_map: id_map("translate-uid", &self.translate_uid)?,
            gid_map: id_map("translate-gid", &self.translate_gid)?,
            security_label: self.security_label,
            killpriv_v2: self.drops_privileges(),
            preserve_noatime: self.preserve_noatime,
            cache: self.cache,
            entry_timeout: self.entry_timeout,
            attr_timeout: self.attr_timeout,
            negative_timeout: self.negative_timeout.unwrap_or_default(),
            notify: self.notify,
            event_file: self.event_file()?,
            no_open: self.no_open,
            no_statx: self.no_statx,
            dir_stream: self.dir_stream,
            announce_submounts: self.announces_submounts(),
            inode_file_handles: self.inode_file_handles,
            contained,
            ..Config::default()
        };
        config.share_descriptors(usize::try_from(descriptors.guest).unwrap_or(usize::MAX));
        config.check().map_err(|error| Error::Usage(error.to_string()))?;
        Ok(config)
    }
}

impl FileSystemOptions {
    fn event_file(&self) -> Result<Option<CString>, Error> {
        let Some(name) = &self.event_file else { return Ok(None) };
        if self.readonly || self.cache != CacheMode::Coherent {
            return Err(Error::usage("--event-file needs --cache=coherent and a share that is not read-only"));
        }
        let name = CString::new(name.as_str()).ok().filter(|name| Name::new(name).is_ok());
        let wrong = || Error::usage("--event-file takes a name without '/', of a file in the root of the share");
        name.map(Some).ok_or_else(wrong)
    }
}

fn usage(option: &str, error: &dyn std::error::Error) -> Error {
    Error::usage(&format!("--{option}: {error}"))
}
