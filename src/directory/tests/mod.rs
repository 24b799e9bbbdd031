//! One suite for both streams, on tmpfs and on the file system of the temporary directory.

mod calls;
mod faults;
mod fixture;
mod guarantees;
mod injected;
mod model;
mod sharing;
