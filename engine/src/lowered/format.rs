//! The sections that a lowered model has beside those of `model.pmq`.

use crate::artifact;
use crate::container::{BLOB, Tag};
use crate::record::{Fields, Record, Writer};

/// First bytes of a lowered model.
pub const MAGIC: &[u8; 8] = b"PMQLOWER";
/// The one version that this build reads and writes: a firmware holds both its model and what reads it.
pub const VERSION: u32 = 1;

/// What it came from and needs: one [`About`].
pub const ABOUT: Tag = *b"LOWR";
/// One [`Step`] each.
pub const STEPS: Tag = *b"STEP";

/// Every section that this build understands.
pub const KNOWN: &[Tag] = &[
    ABOUT,
    STEPS,
    artifact::NAME,
    artifact::INPUT,
    artifact::LAYERS,
    artifact::ACTIVATIONS,
    artifact::HEADS,
    artifact::LABELS,
    artifact::CONFIDENCE,
    artifact::WHITENINGS,
    artifact::CALIBRATIONS,
    artifact::MADE,
    BLOB,
];

/// Whose kernels the weights are in order for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layout {
    /// [`kernel::dsp`](crate::kernel::dsp): Cortex-M4, M7 and M33; in Rust, any core.
    Dsp,
    /// [`kernel::mve`](crate::kernel::mve): Cortex-M55.
    Mve,
}

impl Layout {
    /// Every layout.
    pub const ALL: [Self; 2] = [Self::Dsp, Self::Mve];

    /// The one that this build of the engine runs; `None` on a host, which runs all.
    pub const HERE: Option<Self> = match (cfg!(target_arch = "arm"), cfg!(feature = "mve")) {
        (false, _) => None,
        (true, false) => Some(Self::Dsp),
        (true, true) => Some(Self::Mve),
    };

    /// As logs name it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Dsp => "dsp",
            Self::Mve => "mve",
        }
    }
}

/// What a lowered model came from and needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct About {
    /// Words of scratch memory. First, where [`Sizes`](crate::Sizes) finds it while compiling.
    pub scratch: u32,
    /// The order of the weights.
    pub layout: Layout,
    /// The hash that the source file states.
    pub source: [u8; 32],
}

impl About {
    /// See [`Record::read`].
    pub const fn read(fields: &mut Fields) -> Self {
        let scratch = fields.u32();
        let layout = match fields.u8() {
            0 => Layout::Dsp,
            kind => {
                fields.require(kind == 1);
                Layout::Mve
            }
        };
        fields.zeros::<3>();
        Self { scratch, layout, source: fields.bytes() }
    }
}

impl Record for About {
    const SIZE: usize = 40;

    fn read(fields: &mut Fields) -> Self {
        Self::read(fields)
    }

    fn write(&self, to: &mut Writer) {
        let layout = match self.layout {
            Layout::Dsp => 0,
            Layout::Mve => 1,
        };
        to.u32(self.scratch).u8(layout).bytes(&[0; 3]).bytes(&self.source);
    }
}

/// How a step computes its layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Work {
    /// As `model.pmq` has it, from activations that are stored.
    Layer,
    /// A convolution by the layout's kernels, with what stands before and after it.
    Conv,
}

/// What runs in one go and stores one activation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Step {
    /// How.
    pub work: Work,
    /// The layer.
    pub layer: u16,
    /// The per-channel map that is applied to what the convolution reads.
    pub affine: Option<u16>,
    /// The residual sum that follows the convolution.
    pub sum: Option<u16>,
}

impl Step {
    /// The layer whose output is stored.
    pub fn stores(&self) -> u16 {
        self.sum.unwrap_or(self.layer)
    }
}

/// What no layer's index is.
const NONE: u16 = u16::MAX;

const fn some(layer: u16) -> Option<u16> {
    if layer == NONE { None } else { Some(layer) }
}

impl Step {
    /// See [`Record::read`].
    pub const fn read(fields: &mut Fields) -> Self {
        let work = match fields.u8() {
            0 => Work::Layer,
            kind => {
                fields.require(kind == 1);
                Work::Conv
            }
        };
        fields.zeros::<1>();
        let [layer, affine, sum] = fields.u16s();
        fields.require(matches!(work, Work::Conv) || affine == NONE && sum == NONE);
        Self { work, layer, affine: some(affine), sum: some(sum) }
    }
}

impl Record for Step {
    const SIZE: usize = 8;

    fn read(fields: &mut Fields) -> Self {
        Self::read(fields)
    }

    fn write(&self, to: &mut Writer) {
        let work = match self.work {
            Work::Layer => 0,
            Work::Conv => 1,
        };
        to.u8(work).u8(0).u16s(&[self.layer, self.affine.unwrap_or(NONE), self.sum.unwrap_or(NONE)]);
    }
}
