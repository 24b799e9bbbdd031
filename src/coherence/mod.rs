//! What a guest may keep, and how it learns of change.

pub mod absent;
pub mod habit;
pub mod notify;
pub mod policy;
pub mod validation;
pub mod walks;
pub mod watch;
