//! Tests of packing and unpacking together. They make devices and foreign owners, so they need root.

mod hostile;
mod interop;
mod pack;
mod roundtrip;
mod support;
mod unpack;
