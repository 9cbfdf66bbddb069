//! Both sides of the conversation, joined without a socket: honest, cut short and lied to.
//!
//! `pair` joins the two machines by queues of bytes and plays a script on them; `honest` and
//! `hostile` say what must hold for every script; `transcript` fixes the bytes of one.

mod arbitrary;
mod honest;
mod hostile;
mod messages;
mod pair;
mod transcript;
