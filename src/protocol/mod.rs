//! What the two hosts say to each other: bytes in, bytes and effects out.
//!
//! Pure: no socket, clock or thread. The engine and the simulator drive the same code, so whatever
//! the simulator found to be safe is safe in the engine too. Every byte that comes in here was
//! chosen by somebody else; none of it may reach an index, an allocation or a subtraction before
//! it was checked.

pub mod frame;
