//! What tests with the real program stand on: hosts, processes, hand-made other ends.

pub mod executable;
pub mod far;
pub mod host;
pub mod peer;
pub mod sandbox;
pub mod scene;
pub mod scheduled;
pub mod secure;
pub mod small;
pub mod stand_in;
pub mod web;
