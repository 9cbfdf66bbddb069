//! From what both sides hold to the steps that make the target hold what is wanted.
//!
//! Pure: listings and a policy go in, steps or a refusal come out. Nothing here runs `zfs`, and
//! nothing here ever plans to destroy, roll back or overwrite.
