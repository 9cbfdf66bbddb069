//! Every unsafe block of zferry.
pub mod pidfd;
pub mod pipe;
