//! The two table macros of the crate: structs as they lie in memory, and numbered codes with their published names.
//! Both record the published name next to ours, so that the tests compare every row with the C header.

/// Declares structs of the protocol: `Ours = published_name { field: type, "what it means"; }`.
macro_rules! structs {
    ($($(#[$meta:meta])* $name:ident = $c_name:ident { $($field:ident: $ty:ty, $text:literal;)* })*) => {
        $(
            $(#[$meta])*
            #[derive(
                Clone, Copy, Debug, PartialEq, Eq,
                zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::KnownLayout, zerocopy::Immutable,
            )]
            #[repr(C)]
            pub struct $name {
                $(#[doc = $text] pub $field: $ty,)*
            }

            // Not derived: the library implements `Default` only for arrays of up to 32 elements.
            impl Default for $name {
                fn default() -> Self {
                    zerocopy::FromZeros::new_zeroed()
                }
            }
        )*

        #[cfg(test)]
        pub(crate) const LAYOUTS: &[crate::wire::Layout] = &[$(
            crate::wire::Layout {
                c_name: stringify!($c_name),
                size: size_of::<$name>(),
                fields: &[$(crate::wire::Field {
                    name: stringify!($field),
                    offset: core::mem::offset_of!($name, $field),
                    size: size_of::<$ty>(),
                    ty: stringify!($ty),
                },)*],
            },
        )*];
    };
}

/// Declares an enumeration of numbered codes: `Ours = number, PUBLISHED_NAME, "what it means";`.
macro_rules! codes {
    ($(#[$meta:meta])* $name:ident { $($variant:ident = $value:literal, $c_name:ident, $text:literal;)* }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[repr(u32)]
        pub enum $name {
            $(#[doc = $text] $variant = $value,)*
        }

        impl $name {
            /// Every code, in the order of their numbers.
            pub const ALL: &'static [Self] = &[$(Self::$variant),*];

            /// The name in the kernel's header.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => stringify!($c_name),)*
                }
            }

            /// The number on the wire.
            #[must_use]
            pub const fn number(self) -> u32 {
                self as u32
            }
        }

        impl TryFrom<u32> for $name {
            type Error = crate::UnknownCode;

            fn try_from(number: u32) -> Result<Self, Self::Error> {
                match number {
                    $($value => Ok(Self::$variant),)*
                    _ => Err(crate::UnknownCode(number)),
                }
            }
        }

        impl From<$name> for u32 {
            fn from(code: $name) -> Self {
                code.number()
            }
        }

        impl core::fmt::Display for $name {
            fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
                f.write_str(self.name())
            }
        }
    };
}

/// Declares constants: `OURS: type = value, PUBLISHED_NAME, "what it means";`.
macro_rules! constants {
    ($($name:ident: $ty:ty = $value:expr, $c_name:ident, $text:literal;)*) => {
        $(#[doc = $text] pub const $name: $ty = $value;)*

        #[cfg(test)]
        pub(crate) const CONSTANTS: &[(&str, u64)] = &[$((stringify!($c_name), $name as u64)),*];
    };
}

pub(crate) use {codes, constants, structs};

/// Where the fields of a struct lie, for the tests.
#[cfg(test)]
pub(crate) struct Layout {
    pub c_name: &'static str,
    pub size: usize,
    pub fields: &'static [Field],
}

/// One field of a [`Layout`].
#[cfg(test)]
pub(crate) struct Field {
    pub name: &'static str,
    pub offset: usize,
    pub size: usize,
    pub ty: &'static str,
}
