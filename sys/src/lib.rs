//! Every unsafe block of zferry.
pub mod pipe;
