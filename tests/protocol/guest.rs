//! A client that sends bytes and looks at the memory it lent for the reply.

use ferryfs::protocol::{FileSystem, GuestArch, Operation, Options, Payload, Served, Server};
use vm_memory::VolatileSlice;

use crate::recorder::Recorder;

/// The number that requests of these tests have.
pub const UNIQUE: u64 = 0x1122_3344_5566_7788;
/// What reply memory holds before it is written.
pub const UNTOUCHED: u8 = 0xee;

/// Bytes from a text: hexadecimal digits, `'text'`, and `xx*n` for a byte repeated; blanks mean nothing.
pub fn bytes(text: &str) -> Vec<u8> {
    let mut out = Vec::new();
    for token in text.split_ascii_whitespace() {
        if let Some(quoted) = token.strip_prefix('\'') {
            out.extend(quoted.strip_suffix('\'').unwrap().bytes());
        } else if let Some((byte, count)) = token.split_once('*') {
            out.extend(vec![u8::from_str_radix(byte, 16).unwrap(); count.parse().unwrap()]);
        } else {
            assert!(token.len() % 2 == 0, "{token}");
            out.extend((0..token.len()).step_by(2).map(|at| u8::from_str_radix(&token[at..at + 2], 16).unwrap()));
        }
    }
    out
}

/// A whole request: `fuse_in_header` of node 42, user 1000, group 1001, process 77, and `body`.
pub fn message(opcode: u32, extension_units: u16, body: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    out.extend((40 + body.len() as u32).to_ne_bytes());
    out.extend(opcode.to_ne_bytes());
    out.extend(UNIQUE.to_ne_bytes());
    out.extend(42_u64.to_ne_bytes());
    out.extend(1000_u32.to_ne_bytes());
    out.extend(1001_u32.to_ne_bytes());
    out.extend(77_u32.to_ne_bytes());
    out.extend(extension_units.to_ne_bytes());
    out.extend([0; 2]);
    out.extend(body);
    out
}

/// A request of an operation without extensions, its body as [`bytes`] reads it.
pub fn request(operation: Operation, body: &str) -> Vec<u8> {
    message(operation.number(), 0, &bytes(body))
}

/// INIT as Linux 7.3 sends it, offering everything.
pub fn init() -> Vec<u8> {
    request(Operation::Init, "07000000 2e000000 00000200 ffffffff ffffffff 00*44")
}

/// What came back.
#[derive(Debug, PartialEq, Eq)]
pub struct Answer {
    pub served: Served,
    /// The reply's memory, as long as it was.
    pub memory: Vec<u8>,
}

impl Answer {
    /// The error of the reply, positive; 0 for success.
    #[track_caller]
    pub fn error(&self) -> i32 {
        assert!(matches!(self.served, Served::Reply(_)), "{:?}", self.served);
        -i32::from_ne_bytes(self.memory[4..8].try_into().unwrap())
    }

    /// The body of a reply that must be a success.
    #[track_caller]
    pub fn body(&self) -> &[u8] {
        let Served::Reply(used) = self.served else { panic!("{:?}", self.served) };
        assert_eq!(self.error(), 0);
        &self.memory[16..used as usize]
    }
}

/// Sends `message`, leaving `room` bytes for the reply, both cut into segments of these lengths (the last one takes
/// what is left). Checks what must be true of every reply.
pub fn send_cut<F: FileSystem>(
    server: &Server<F>,
    message: &[u8],
    room: usize,
    cuts: &[usize],
    may_block: bool,
) -> Answer {
    let head_len = server.head_len(&message[..message.len().min(40)], message.len());
    let (head, _) = message.split_at(head_len);
    let mut request_parts = cut(message, cuts);
    let request_segments: Vec<_> = request_parts.iter_mut().map(|p| VolatileSlice::from(p.as_mut_slice())).collect();
    let mut reply_parts = cut(&vec![UNTOUCHED; room], cuts);
    let reply_segments: Vec<_> = reply_parts.iter_mut().map(|p| VolatileSlice::from(p.as_mut_slice())).collect();
    let served = server.serve(head, Payload::new(&request_segments, head_len), &reply_segments, may_block);
    assert_eq!(server.mistakes(), 0, "a panic was answered as an error");
    let memory = reply_parts.concat();
    match served {
        Served::Reply(used) => {
            assert!(used >= 16 && used as usize <= room, "{used} of {room}");
            assert_eq!(memory[..4], used.to_ne_bytes(), "the header's length is the used length");
            assert_eq!(memory[8..16], message[8..16], "the reply names its request");
            let error = i32::from_ne_bytes(memory[4..8].try_into().unwrap());
            assert!((-511..=0).contains(&error), "{error}");
            assert!(error == 0 || used == 16, "an error has no body");
        }
        Served::Silent | Served::Dropped(_) => assert!(memory.iter().all(|byte| *byte == UNTOUCHED)),
        Served::WouldBlock => assert!(!may_block),
    }
    Answer { served, memory }
}

fn cut(bytes: &[u8], cuts: &[usize]) -> Vec<Vec<u8>> {
    let mut rest = bytes;
    let mut parts = Vec::new();
    for at in cuts {
        let (part, later) = rest.split_at((*at).min(rest.len()));
        parts.push(part.to_vec());
        rest = later;
    }
    parts.push(rest.to_vec());
    parts
}

/// Sends a request and leaves plenty of room.
pub fn send<F: FileSystem>(server: &Server<F>, message: &[u8]) -> Answer {
    send_cut(server, message, 4096 + 16, &[16], true)
}

/// A server of a recorder, before INIT.
pub fn unstarted(read_only: bool) -> Server<Recorder> {
    Server::new(Recorder::default(), Options { read_only, arch: GuestArch::Generic })
}

/// A server of a recorder in a session that agreed on everything.
pub fn started() -> Server<Recorder> {
    let server = unstarted(false);
    assert_eq!(send(&server, &init()).error(), 0);
    server.file_system().take_calls();
    server
}
