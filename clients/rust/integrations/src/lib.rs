//! Examples and tests of `omni-bridge-client` with the crates that its features are for. Nothing is exported.

/// The README's examples compile.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
struct Readme;
