//! The macro that turns the rows of `operations.rs` into types and code.

/// Declares `Operation` and `Request` from rows of `number Name (part: Type, ...) effect -> Reply;`.
macro_rules! operations {
    (
        served {
            $($number:literal $variant:ident ($($part:ident: $ty:ty),*) $effect:ident $(($by:ident))? -> $reply:ty;)*
        }
        unserved { $($un_number:literal $un_variant:ident -> $un_reply:ty;)* }
    ) => {
        /// An operation of the protocol. Dense: `as usize` indexes an array of [`COUNT`](Operation::COUNT).
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(u8)]
        pub enum Operation {
            $(#[doc = concat!("`", stringify!($variant), "`, opcode ", $number, ".")] $variant,)*
            $(#[doc = concat!("`", stringify!($un_variant), "`, opcode ", $un_number, ", not served.")] $un_variant,)*
        }

        impl Operation {
            /// All of them, served ones first.
            pub const ALL: &[Self] = &[$(Self::$variant,)* $(Self::$un_variant,)*];

            /// How many there are.
            pub const COUNT: usize = Self::ALL.len();

            /// The operation of an opcode.
            #[must_use]
            pub const fn from_number(number: u32) -> Option<Self> {
                match number {
                    $($number => Some(Self::$variant),)*
                    $($un_number => Some(Self::$un_variant),)*
                    _ => None,
                }
            }

            /// The opcode.
            #[must_use]
            pub const fn number(self) -> u32 {
                match self {
                    $(Self::$variant => $number,)*
                    $(Self::$un_variant => $un_number,)*
                }
            }

            /// The opcode's name in the kernel's header, without the common prefix.
            #[must_use]
            pub fn name(self) -> &'static str {
                let name = match self {
                    $(Self::$variant => fuse_abi::Opcode::$variant.name(),)*
                    $(Self::$un_variant => fuse_abi::Opcode::$un_variant.name(),)*
                };
                name.strip_prefix("FUSE_").unwrap_or(name)
            }

            /// Whether it is ever answered.
            #[must_use]
            pub const fn has_reply(self) -> bool {
                match self {
                    $(Self::$variant => <$reply as ReplyShape>::ANSWERED,)*
                    $(Self::$un_variant => <$un_reply as ReplyShape>::ANSWERED,)*
                }
            }

            /// Bytes that the fixed part of a successful reply has after its header.
            #[must_use]
            pub fn reply_size(self, minor: u32) -> usize {
                match self {
                    $(Self::$variant => <$reply as ReplyShape>::fixed_size(minor),)*
                    $(Self::$un_variant => <$un_reply as ReplyShape>::fixed_size(minor),)*
                }
            }
        }

        /// A request whose every part was checked.
        #[derive(Clone, Copy, Debug)]
        pub enum Request<'r> {
            $(#[allow(missing_docs)] $variant { $($part: $ty),* },)*
        }

        impl<'r> Request<'r> {
            /// Takes the parts of `operation` off the bytes.
            pub(super) fn take(operation: Operation, cursor: &mut Cursor<'r>) -> Result<Self, fuse_abi::Errno> {
                match operation {
                    $(Operation::$variant => Ok(Self::$variant { $($part: <$ty as Take<'r>>::take(cursor)?),* }),)*
                    $(Operation::$un_variant => Err(fuse_abi::Errno::ENOSYS),)*
                }
            }

            /// Which operation it asks for.
            #[must_use]
            pub const fn operation(&self) -> Operation {
                match self {
                    $(Self::$variant { .. } => Operation::$variant,)*
                }
            }

            /// Whether a read-only file system refuses it.
            #[must_use]
            pub fn changes(&self) -> bool {
                match self {
                    $(Self::$variant { $($by,)? .. } => $crate::protocol::table::effect!($effect $($by)?),)*
                }
            }
        }
    };
}

macro_rules! effect {
    (reads) => {
        false
    };
    (changes) => {
        true
    };
    (changes $part:ident) => {
        $part.changes()
    };
}

pub(super) use {effect, operations};
