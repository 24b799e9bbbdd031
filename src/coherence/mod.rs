//! What a guest may keep, and how it learns of change.

pub mod policy;
pub mod validation;
pub mod walks;
