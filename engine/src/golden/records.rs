//! How cases, pictures, probes and what the file is about lie in `selftest.bin`.

use super::{About, Case, Encoded, Origin, ProbeKind, Probes};
use crate::record::{Fields, Record, Writer};
use crate::tensor::Span;
use crate::typicality::Distances;

impl Record for Case {
    const SIZE: usize = 52;

    fn read(fields: &mut Fields) -> Self {
        let [image, crc, int8_outputs, float_outputs] = core::array::from_fn(|_| Span::read(fields));
        let rate_nats = fields.f32();
        let distances = Distances { posterior: fields.f32(), spread: fields.f32(), picture: fields.f32() };
        let (class, accept) = (fields.u16(), fields.flag());
        fields.zeros::<1>();
        Self { image, crc, int8_outputs, float_outputs, rate_nats, distances, class, accept }
    }

    fn write(&self, to: &mut Writer) {
        to.record(&self.image).record(&self.crc).record(&self.int8_outputs).record(&self.float_outputs);
        let Distances { posterior, spread, picture } = self.distances;
        to.f32(self.rate_nats).f32(posterior).f32(spread).f32(picture).u16(self.class).u8(self.accept.into()).u8(0);
    }
}

impl Record for Encoded {
    const SIZE: usize = 20;

    fn read(fields: &mut Fields) -> Self {
        let (file, input_crc, rate_nats) = (Span::read(fields), fields.u32(), fields.f32());
        let (class, accept) = (fields.u16(), fields.flag());
        fields.zeros::<1>();
        Self { file, input_crc, rate_nats, class, accept }
    }

    fn write(&self, to: &mut Writer) {
        to.record(&self.file).u32(self.input_crc).f32(self.rate_nats);
        to.u16(self.class).u8(self.accept.into()).u8(0);
    }
}

impl Record for Probes {
    const SIZE: usize = 28;

    fn read(fields: &mut Fields) -> Self {
        let kind = match fields.u8() {
            0 => ProbeKind::Clean,
            1 => ProbeKind::Noisy,
            kind => {
                fields.require(kind == 2);
                ProbeKind::Adversarial
            }
        };
        fields.zeros::<3>();
        let (eps_pixels, n, min_correct) = (fields.f32(), fields.u16(), fields.u16());
        Self { kind, eps_pixels, n, min_correct, images: Span::read(fields), labels: Span::read(fields) }
    }

    fn write(&self, to: &mut Writer) {
        to.u8(self.kind as u8).bytes(&[0; 3]).f32(self.eps_pixels).u16(self.n).u16(self.min_correct);
        to.record(&self.images).record(&self.labels);
    }
}

impl About {
    /// See [`Record::read`].
    pub const fn read(fields: &mut Fields) -> Self {
        let (model, layers, outputs) = (fields.bytes(), fields.u16(), fields.u16());
        let (image_bytes, float_tolerance) = (fields.u32(), fields.f32());
        let origin = match fields.u8() {
            0 => Origin::DataSet,
            kind => {
                fields.require(kind == 1);
                Origin::Synthesised
            }
        };
        fields.zeros::<3>();
        Self { model, layers, outputs, image_bytes, float_tolerance, origin }
    }
}

impl Record for About {
    const SIZE: usize = 48;

    fn read(fields: &mut Fields) -> Self {
        Self::read(fields)
    }

    fn write(&self, to: &mut Writer) {
        to.bytes(&self.model).u16(self.layers).u16(self.outputs).u32(self.image_bytes).f32(self.float_tolerance);
        to.u8(self.origin as u8).bytes(&[0; 3]);
    }
}
