//! What takes too many rows to stand beside the code.

mod midnight;
