//! The assembly of this folder, as one unit: its files share macros.

#![allow(unsafe_code)]

core::arch::global_asm!(
    include_str!("eight.s"),
    include_str!("group/maps.s"),
    include_str!("rows/rows.s"),
    include_str!("dot.s"),
    options(raw)
);
