//! The board's pins, where this build has them.

use paradise_runtime::Verdict;

/// Accept, abstain and fault lines, or none.
pub struct Pins {
    #[cfg(feature = "gpio-rppal")]
    lines: Option<paradise_runtime::pins::DecisionPins<rppal::gpio::OutputPin>>,
}

impl Pins {
    /// Opens three lines by BCM number (accept, abstain, fault); `None` opens nothing.
    ///
    /// # Errors
    /// If there are not three different numbers, or the board refuses one.
    pub fn open(numbers: Option<&[u8]>) -> anyhow::Result<Self> {
        if let Some(n) = numbers {
            let distinct = n.len() == 3 && n[0] != n[1] && n[1] != n[2] && n[0] != n[2];
            anyhow::ensure!(distinct, "--gpio takes three different BCM numbers: accept,abstain,fault");
        }
        Self::board(numbers)
    }

    #[cfg(feature = "gpio-rppal")]
    fn board(numbers: Option<&[u8]>) -> anyhow::Result<Self> {
        use anyhow::Context;
        let Some(numbers) = numbers else { return Ok(Self { lines: None }) };
        let gpio = rppal::gpio::Gpio::new().context("--gpio: no GPIO on this machine")?;
        let pin =
            |n: u8| Ok::<_, anyhow::Error>(gpio.get(n).with_context(|| format!("--gpio {n}"))?.into_output_low());
        let Ok(lines) =
            paradise_runtime::pins::DecisionPins::new(pin(numbers[0])?, pin(numbers[1])?, pin(numbers[2])?);
        Ok(Self { lines: Some(lines) })
    }

    #[cfg(not(feature = "gpio-rppal"))]
    fn board(numbers: Option<&[u8]>) -> anyhow::Result<Self> {
        anyhow::ensure!(numbers.is_none(), "--gpio: this build has no GPIO; build with --features gpio-rppal");
        Ok(Self {})
    }

    /// Shows a verdict, or a fault where there is none.
    ///
    /// # Errors
    /// If a pin cannot be set.
    pub fn show(&mut self, verdict: Option<&Verdict>) -> anyhow::Result<()> {
        #[cfg(feature = "gpio-rppal")]
        if let Some(lines) = &mut self.lines {
            let Ok(()) = lines.show(verdict);
        }
        #[cfg(not(feature = "gpio-rppal"))]
        let _ = verdict;
        Ok(())
    }
}
