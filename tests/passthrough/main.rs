//! The promises of the passthrough file system, each by name: requests in as bytes, host objects behind.

#[path = "../support/mod.rs"]
mod support;

mod attributes;
mod credentials;
mod directories;
mod files;
mod inodes;
mod killpriv;
mod limits;
mod names;
mod news;
mod options;
mod special;
mod unasked;
