//! What the daemon promises, proved through real virtqueues by a front end that may post anything.
//!
//! `FERRYFS_TEST_DAEMON` puts another program in the place of ours.

mod chains;
mod control;
mod description;
mod ending;
mod flaws;
mod front_ends;
mod gate;
mod idle;
mod lease;
mod limits;
mod load;
mod memory;
mod mistakes;
mod operations;
mod pool;
mod queues;
mod requests;
mod sessions;
mod support;
