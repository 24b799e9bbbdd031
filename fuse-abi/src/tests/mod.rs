//! The tests of the crate: `layout` compares every name with the C header, `behaviour` tries the few functions.

mod behaviour;
mod c_header;
mod facts;
mod layout;
