//! Networks under confidence, as evaluations see them: the int8 engine with its float twin's gradients, and the float network itself.

use crate::encoder::{Network, abstaining};
use crate::prediction;
use anyhow::Result;
use candle_core::Device;
use paradise_attack::abstaining::AbstainingModel;
use paradise_data::Dataset;
use paradise_engine::Model;
use paradise_evaluate::evaluation::ConfidentModel;
use paradise_evaluate::prediction::{Prediction, int8};

/// The engine, whose float twin gives the gradients.
pub(crate) struct Int8Confidence<'a> {
    pub network: &'a Network,
    pub model: Model<'a>,
    pub calibration: &'a Dataset,
}

impl ConfidentModel for Int8Confidence<'_> {
    fn name(&self) -> &'static str {
        "int8"
    }

    fn predict(&self, set: &Dataset) -> Result<Vec<Prediction>> {
        int8::predict(&self.model, set)
    }

    fn calibration(&self) -> &Dataset {
        self.calibration
    }

    fn abstaining(&self) -> Result<AbstainingModel<'_>> {
        abstaining(self.network, &self.model, &Device::Cpu)
    }
}

/// The folded float network under confidence fitted to it.
pub(crate) struct FloatConfidence<'a> {
    pub network: &'a Network,
    pub folded: &'a Network,
    pub model: Model<'a>,
    pub device: &'a Device,
    pub calibration: &'a Dataset,
}

impl ConfidentModel for FloatConfidence<'_> {
    fn name(&self) -> &'static str {
        "float"
    }

    fn predict(&self, set: &Dataset) -> Result<Vec<Prediction>> {
        prediction::predict(&self.folded.frozen(), &self.model, set)
    }

    fn calibration(&self) -> &Dataset {
        self.calibration
    }

    fn abstaining(&self) -> Result<AbstainingModel<'_>> {
        abstaining(self.network, &self.model, self.device)
    }
}
