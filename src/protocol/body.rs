//! Guest memory as a request sees it: a payload to read from, a reply body to fill.
//!
//! Both are windows over the segments that a transport found; neither copies file data.

use vm_memory::{Bytes, VolatileSlice};

/// Bytes of a request that stay where the guest put them: the data of a WRITE.
#[derive(Clone, Copy, Debug)]
pub struct Payload<'r> {
    segments: &'r [VolatileSlice<'r>],
    skip: usize,
    len: usize,
}

impl<'r> Payload<'r> {
    /// The bytes of `segments` after the first `skip`.
    #[must_use]
    pub fn new(segments: &'r [VolatileSlice<'r>], skip: usize) -> Self {
        let total = segments.iter().fold(0_usize, |sum, segment| sum.saturating_add(segment.len()));
        Self { segments, skip, len: total.saturating_sub(skip) }
    }

    /// A request that carries no data of its own.
    #[must_use]
    pub const fn empty() -> Self {
        Self { segments: &[], skip: 0, len: 0 }
    }

    /// How many bytes there are.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The memory, in order.
    pub fn segments(&self) -> impl Iterator<Item = VolatileSlice<'r>> + Clone + use<'r> {
        window(self.segments, self.skip, self.len)
    }
}

/// What of a reply follows its header: guest memory that a file system fills from the front.
#[derive(Debug)]
pub struct Body<'r> {
    segments: &'r [VolatileSlice<'r>],
    /// Bytes of the first remaining segment that are taken already.
    offset: usize,
    room: usize,
    written: usize,
}

impl<'r> Body<'r> {
    /// The memory of `segments` after the first `skip` bytes.
    #[must_use]
    pub fn new(segments: &'r [VolatileSlice<'r>], skip: usize) -> Self {
        let total = segments.iter().fold(0_usize, |sum, segment| sum.saturating_add(segment.len()));
        let mut body = Self { segments, offset: 0, room: total, written: 0 };
        body.advance(skip.min(total));
        body.written = 0;
        body
    }

    /// Gives away all room beyond `size` more bytes, so that a reply holds what was asked for and no more.
    pub fn limit(&mut self, size: usize) {
        self.room = self.room.min(size);
    }

    /// How many bytes still fit.
    #[must_use]
    pub const fn room(&self) -> usize {
        self.room
    }

    /// How many bytes were filled.
    #[must_use]
    pub const fn written(&self) -> usize {
        self.written
    }

    /// Appends `bytes` if they fit whole; says whether they did.
    #[must_use]
    pub fn put(&mut self, bytes: &[u8]) -> bool {
        if bytes.len() > self.room {
            return false;
        }
        let mut rest = bytes;
        while let Some((segment, tail)) = self.segments.split_first() {
            let free = segment.len().saturating_sub(self.offset);
            let (now, later) = rest.split_at(rest.len().min(free));
            // Both bounds were just computed from this segment, so the write is whole.
            if segment.write_slice(now, self.offset).is_err() {
                return false;
            }
            self.offset = self.offset.saturating_add(now.len());
            rest = later;
            if rest.is_empty() {
                break;
            }
            self.segments = tail;
            self.offset = 0;
        }
        self.room = self.room.saturating_sub(bytes.len());
        self.written = self.written.saturating_add(bytes.len());
        true
    }

    /// The memory still free, in order: where `preadv` puts file data.
    pub fn unfilled(&self) -> impl Iterator<Item = VolatileSlice<'r>> + Clone + use<'r> {
        window(self.segments, self.offset, self.room)
    }

    /// Takes note that `count` bytes of [`unfilled`](Self::unfilled) were written.
    pub fn filled(&mut self, count: usize) {
        self.advance(count.min(self.room));
    }

    fn advance(&mut self, count: usize) {
        self.room = self.room.saturating_sub(count);
        self.written = self.written.saturating_add(count);
        let mut left = count;
        while let Some((segment, tail)) = self.segments.split_first() {
            let free = segment.len().saturating_sub(self.offset);
            if left < free {
                self.offset = self.offset.saturating_add(left);
                return;
            }
            left = left.saturating_sub(free);
            self.segments = tail;
            self.offset = 0;
        }
    }
}

/// `len` bytes of `segments` from `skip` on, cut to size.
fn window<'r>(
    segments: &'r [VolatileSlice<'r>],
    skip: usize,
    len: usize,
) -> impl Iterator<Item = VolatileSlice<'r>> + Clone + use<'r> {
    let mut skip = skip;
    let mut left = len;
    segments.iter().filter_map(move |segment| {
        let from = skip.min(segment.len());
        let take = segment.len().saturating_sub(from).min(left);
        skip = skip.saturating_sub(from);
        left = left.saturating_sub(take);
        if take == 0 { None } else { segment.subslice(from, take).ok() }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn over<R>(parts: &mut [Vec<u8>], f: impl FnOnce(&[VolatileSlice<'_>]) -> R) -> R {
        let segments: Vec<_> = parts.iter_mut().map(|part| VolatileSlice::from(part.as_mut_slice())).collect();
        f(&segments)
    }

    #[test]
    fn a_body_is_filled_across_segments_and_refuses_what_does_not_fit_whole() {
        let mut parts = [vec![0; 3], vec![], vec![0; 4], vec![0; 2]];
        over(&mut parts, |segments| {
            let mut body = Body::new(segments, 2);
            assert_eq!(body.room(), 7);
            assert!(body.put(b"abcd"));
            assert!(!body.put(b"wxyz"));
            assert!(body.put(b"efg"));
            assert_eq!((body.room(), body.written()), (0, 7));
        });
        assert_eq!(parts.concat(), b"\0\0abcdefg");
    }

    #[test]
    fn a_limited_body_shows_no_more_memory_than_was_asked_for() {
        let mut parts = [vec![0; 16], vec![0; 4096]];
        over(&mut parts, |segments| {
            let mut body = Body::new(segments, 16);
            body.limit(10);
            assert_eq!(body.unfilled().map(|s| s.len()).collect::<Vec<_>>(), [10]);
            body.filled(4);
            assert_eq!(body.unfilled().map(|s| s.len()).collect::<Vec<_>>(), [6]);
            body.filled(100);
            assert_eq!(body.written(), 10);
        });
    }

    #[test]
    fn a_payload_skips_the_head_wherever_the_segments_are_cut() {
        for cut in 0..=6 {
            let (head, tail) = b"01\x02345".split_at(cut);
            let mut parts = [head.to_vec(), tail.to_vec()];
            over(&mut parts, |segments| {
                let payload = Payload::new(segments, 3);
                let bytes: Vec<u8> = payload
                    .segments()
                    .flat_map(|segment| {
                        let mut bytes = vec![0; segment.len()];
                        segment.copy_to(&mut bytes);
                        bytes
                    })
                    .collect();
                assert_eq!((payload.len(), bytes.as_slice()), (3, b"345".as_slice()));
            });
        }
    }
}
