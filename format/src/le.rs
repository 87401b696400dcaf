//! Little-endian integers of alignment 1: readable in place, in any buffer, on any host.

use bytemuck::{Pod, Zeroable};

macro_rules! little_endian {
    ($($name:ident $int:ty),*) => {$(
        #[doc = concat!("A little-endian `", stringify!($int), "` of alignment 1.")]
        #[derive(Clone, Copy, PartialEq, Eq, Pod, Zeroable)]
        #[repr(transparent)]
        pub struct $name([u8; size_of::<$int>()]);

        impl $name {
            /// The number.
            #[must_use]
            pub const fn get(self) -> $int {
                <$int>::from_le_bytes(self.0)
            }
        }

        impl From<$int> for $name {
            fn from(value: $int) -> Self {
                Self(value.to_le_bytes())
            }
        }

        impl std::fmt::Debug for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                self.get().fmt(f)
            }
        }
    )*};
}

little_endian!(Le32 u32, LeI32 i32, Le64 u64, LeI64 i64);
