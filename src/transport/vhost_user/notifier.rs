//! The queue by which the guest hears what it did not ask for: it offers buffers, and gets them back with a message each.

use super::ring::{Ring, Taken};
use crate::{
    protocol::{Body, FileSystem, Sent, Server},
    transport::virtqueue::Chain,
};

/// Its number, where the guest has acknowledged it.
pub(super) const QUEUE: usize = 1;
/// The size that each of the guest's buffers has, at least.
pub(super) const BUFFER: u32 = crate::coherence::notify::MESSAGE_MAX as u32;

/// The life of the thread. While the guest does not take the queue the file system speaks for the record, if it keeps one.
pub(super) fn run<F: FileSystem>(ring: &Ring, server: &Server<F>, for_the_record: bool) {
    let mut chain = Chain::default();
    let fs = server.file_system();
    while !fs.is_mute() {
        if ring.is_served() {
            server.speak(Some(&mut |message| send(ring, &mut chain, message)));
        } else if for_the_record {
            server.speak(None);
        } else if !ring.await_start() {
            return;
        }
    }
}

/// Waits until the guest has offered a buffer: one that only set the queue up does not listen yet.
fn await_buffer(ring: &Ring) -> Sent {
    while ring.is_served() {
        if ring.has_more() {
            return Sent::Unsure;
        }
        ring.sleep(ring.ask_for_kicks());
    }
    Sent::Gone
}

/// Puts a message into the next buffer of the guest, and waits for one if it has to. Nobody waits for this.
fn send(ring: &Ring, chain: &mut Chain, message: &[u8]) -> Sent {
    if message.is_empty() {
        return await_buffer(ring);
    }
    let mut heads = Vec::with_capacity(1);
    loop {
        match ring.take(&mut heads, 1) {
            Taken::Requests(memory, table) => {
                let Some(head) = heads.pop() else { continue };
                let len = match chain.load(&memory, table, head) {
                    Ok(()) if Body::new(chain.writable(), 0).put(message) => u32::try_from(message.len()).unwrap_or(0),
                    // A buffer that holds no message goes back empty.
                    _ => 0,
                };
                ring.hand_back_and_notify(head, chain, len);
                chain.clear();
                if len != 0 {
                    // It is not said what became of it.
                    return Sent::Unsure;
                }
            }
            Taken::Nothing if !ring.is_served() => return Sent::Gone,
            Taken::Nothing => ring.sleep(ring.ask_for_kicks()),
            Taken::End => return Sent::Gone,
        }
    }
}
