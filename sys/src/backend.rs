//! Which of the two ways to the kernel is used.

/// How operations reach the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Backend {
    /// `io_uring`.
    Uring,
    /// Plain system calls on threads.
    Threads,
}
