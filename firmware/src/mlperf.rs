//! The serial commands of MLPerf Tiny's runner, in place of the link, in firmware that is built for it: so that its own runner measures
//! this one. Performance mode: a time is a line of text. Commands end with `%`, and every answer with `m-ready`
//! (mlcommons/tiny, `benchmark/api` and `benchmark/runner`).
//!
//! ```text
//! name%  profile%  help%  timestamp%  db load N%  db HEX%  db print%  infer N W%  results%
//! ```

use crate::app::App;
use crate::board::Board;
use crate::checks::Hardware;
use core::fmt::{self, Write};
use heapless::Vec;

/// What answers.
pub trait Target {
    /// Classifies a picture, u8 `[h][w][c]`, and shows the probability of each class; `None` if it may not.
    fn infer(&mut self, picture: &[u8], show: &mut dyn FnMut(&[f32])) -> Option<()>;

    /// A counter that goes up all the time and wraps.
    fn ticks(&mut self) -> u32;

    /// Sends bytes to the host.
    fn send(&mut self, bytes: &[u8]);
}

impl<B: Board + Hardware> Target for App<'_, B> {
    fn infer(&mut self, picture: &[u8], show: &mut dyn FnMut(&[f32])) -> Option<()> {
        self.measure(picture, &mut |answer| show(answer.probabilities))
    }

    fn ticks(&mut self) -> u32 {
        self.board().ticks()
    }

    fn send(&mut self, bytes: &[u8]) {
        self.board().send(bytes);
    }
}

/// What the runner of image classification asks for by name.
const MODEL: &str = "ic01";
/// What the runner knows this set of commands by.
const PROFILE: &str = "ULPMark for tinyML Firmware V0.0.1";
/// Longest command, with its digits.
const COMMAND: usize = 80;
/// Inferences before those that are timed, if a command does not say.
const WARM_UP: u32 = 10;

/// The commands' state: a picture of at most `PICTURE` bytes, and what was said of it last, of `CLASSES` classes.
#[derive(Debug)]
pub struct Runner<const PICTURE: usize, const CLASSES: usize> {
    command: Vec<u8, COMMAND>,
    /// More digits came than fit: the command means nothing.
    overlong: bool,
    picture: [u8; PICTURE],
    /// Bytes that are to come, and that have.
    expected: usize,
    loaded: usize,
    /// In thousandths.
    results: Vec<u16, CLASSES>,
    ticks_a_second: u32,
    last: u32,
    elapsed: u64,
}

impl<const PICTURE: usize, const CLASSES: usize> Runner<PICTURE, CLASSES> {
    /// A state in which nothing is loaded.
    pub const fn new(ticks_a_second: u32) -> Self {
        Self {
            command: Vec::new(),
            overlong: false,
            picture: [0; PICTURE],
            expected: 0,
            loaded: 0,
            results: Vec::new(),
            ticks_a_second,
            last: 0,
            elapsed: 0,
        }
    }

    /// Says that commands may come.
    pub fn begin(&mut self, target: &mut impl Target) {
        self.last = target.ticks();
        self.say(target, format_args!("m-timestamp-mode-performance\r\nm-init-done\r\nm-ready"));
    }

    /// Takes a byte, and does what the command that it ends says.
    pub fn hear(&mut self, byte: u8, target: &mut impl Target) {
        match byte {
            b'%' => {
                let command = core::mem::take(&mut self.command);
                let known = !core::mem::take(&mut self.overlong) && self.obey(&command, target).is_some();
                if !known {
                    let text = core::str::from_utf8(&command).unwrap_or("");
                    self.say(target, format_args!("e-[Unknown command: {text}]"));
                }
                self.say(target, format_args!("m-ready"));
            }
            b'\r' | b'\n' => {}
            byte => self.overlong |= self.command.push(byte).is_err(),
        }
    }

    fn say(&self, target: &mut impl Target, line: fmt::Arguments) {
        let mut out = Out(target);
        // Sending cannot fail.
        let _ = out.write_fmt(line).and_then(|()| out.write_str("\r\n"));
    }

    /// `None` if there is no such command.
    fn obey(&mut self, command: &[u8], target: &mut impl Target) -> Option<()> {
        let mut words = core::str::from_utf8(command).ok()?.split_ascii_whitespace();
        match (words.next()?, words.next()) {
            ("name", _) => self.say(target, format_args!("m-name-dut-[paradise]")),
            ("profile", _) => {
                self.say(target, format_args!("m-profile-[{PROFILE}]"));
                self.say(target, format_args!("m-model-[{MODEL}]"));
            }
            ("help", _) => {
                self.say(target, format_args!("{PROFILE}\r\n\r\nname, profile, timestamp: who this is, and when"));
                self.say(target, format_args!("db load N, db HEX, db print: a picture of N bytes"));
                self.say(target, format_args!("infer N [W={WARM_UP}], results: N inferences after W others"));
            }
            ("timestamp", _) => self.time(target),
            ("results", _) => self.results(target),
            ("db", Some("load")) => self.load(words.next(), target),
            ("db", Some("print")) => self.print(target),
            ("db", Some(digits)) => self.digits(digits.as_bytes(), target),
            ("infer", times) => self.infer(times, words.next(), target),
            _ => return None,
        }
        Some(())
    }

    /// Microseconds since the beginning.
    fn time(&mut self, target: &mut impl Target) {
        self.tick(target);
        let micros = self.elapsed * 1_000_000 / u64::from(self.ticks_a_second);
        self.say(target, format_args!("m-lap-us-{micros}"));
    }

    /// Notes what has passed, before the counter wraps.
    fn tick(&mut self, target: &mut impl Target) {
        let now = target.ticks();
        self.elapsed += u64::from(now.wrapping_sub(self.last));
        self.last = now;
    }

    fn load(&mut self, bytes: Option<&str>, target: &mut impl Target) {
        match bytes.and_then(|bytes| bytes.parse().ok()) {
            Some(bytes @ 1..) if bytes <= PICTURE => {
                (self.expected, self.loaded) = (bytes, 0);
                self.say(target, format_args!("m-[Expecting {bytes} bytes]"));
            }
            _ => self.say(target, format_args!("e-[db load: 1 to {PICTURE} bytes]")),
        }
    }

    fn digits(&mut self, digits: &[u8], target: &mut impl Target) {
        let value = |digit: &u8| char::from(*digit).to_digit(16).map(|value| value as u8);
        for pair in digits.chunks(2) {
            let Some((high, low)) = pair.first().and_then(value).zip(pair.get(1).and_then(value)) else {
                return self.say(target, format_args!("e-[db: pairs of hexadecimal digits]"));
            };
            if self.loaded >= self.expected {
                return self.say(target, format_args!("e-[db: nothing is expected; begin by db load]"));
            }
            self.picture[self.loaded] = high << 4 | low;
            self.loaded += 1;
            if self.loaded == self.expected {
                // What is left of the digits is nobody's.
                return self.say(target, format_args!("m-load-done"));
            }
        }
    }

    fn print(&mut self, target: &mut impl Target) {
        for line in self.picture[..self.loaded].chunks(8) {
            let mut out = Out(target);
            let _ = out.write_str("m-buffer");
            for byte in line {
                let _ = write!(out, "-{byte:02x}");
            }
            let _ = out.write_str("\r\n");
        }
    }

    fn infer(&mut self, times: Option<&str>, warm_up: Option<&str>, target: &mut impl Target) {
        let times = times.map_or(Ok(1), str::parse);
        let warm_up = warm_up.map_or(Ok(WARM_UP), str::parse);
        let (Ok(times @ 1..), Ok(warm_up)) = (times, warm_up) else {
            return self.say(target, format_args!("e-[infer N W: N at least 1, W at least 0]"));
        };
        if self.loaded < PICTURE {
            return self.say(target, format_args!("e-[infer: {} of {PICTURE} bytes are loaded]", self.loaded));
        }
        self.say(target, format_args!("m-warmup-start-{warm_up}"));
        let mut well = self.run(warm_up, target);
        self.say(target, format_args!("m-warmup-done"));
        self.say(target, format_args!("m-infer-start-{times}"));
        self.time(target);
        well &= self.run(times, target);
        self.time(target);
        if !well {
            return self.say(target, format_args!("e-[infer: a fault is latched]"));
        }
        self.say(target, format_args!("m-infer-done"));
        self.results(target);
    }

    /// Whether all went well.
    fn run(&mut self, times: u32, target: &mut impl Target) -> bool {
        (0..times).all(|_| {
            let results = &mut self.results;
            let done = target.infer(&self.picture, &mut |probabilities| {
                results.clear();
                results.extend(probabilities.iter().take(CLASSES).map(|p| (1000.0 * p + 0.5) as u16));
            });
            self.tick(target);
            done.is_some()
        })
    }

    fn results(&mut self, target: &mut impl Target) {
        let mut out = Out(target);
        let _ = out.write_str("m-results-[");
        for (i, thousandths) in self.results.iter().enumerate() {
            let comma = if i == 0 { "" } else { "," };
            let _ = write!(out, "{comma}{}.{:03}", thousandths / 1000, thousandths % 1000);
        }
        let _ = out.write_str("]\r\n");
    }
}

/// Text to the host.
struct Out<'t, T>(&'t mut T);

impl<T: Target> Write for Out<'_, T> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.0.send(text.as_bytes());
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    extern crate std;
    use std::string::String;

    /// Says of four bytes which is the largest, and takes 40 ticks for it.
    #[derive(Default)]
    struct Four {
        said: String,
        now: u32,
        fault: bool,
    }

    impl Target for Four {
        fn infer(&mut self, picture: &[u8], show: &mut dyn FnMut(&[f32])) -> Option<()> {
            self.now = self.now.wrapping_add(40);
            let sum: f32 = picture.iter().map(|v| f32::from(*v)).sum();
            let shares: std::vec::Vec<f32> = picture.iter().map(|v| f32::from(*v) / sum).collect();
            show(&shares);
            (!self.fault).then_some(())
        }
        fn ticks(&mut self) -> u32 {
            self.now
        }
        fn send(&mut self, bytes: &[u8]) {
            self.said.push_str(std::str::from_utf8(bytes).unwrap());
        }
    }

    fn say(runner: &mut Runner<4, 4>, target: &mut Four, commands: &str) -> String {
        target.said.clear();
        commands.bytes().for_each(|byte| runner.hear(byte, target));
        target.said.replace("\r\n", "|")
    }

    #[test]
    fn a_session_of_the_runner() {
        // The counter wraps on the way.
        let mut target = Four { now: u32::MAX - 50, ..Four::default() };
        let mut runner = Runner::new(2_000_000);
        runner.begin(&mut target);
        assert!(target.said.ends_with("m-init-done\r\nm-ready\r\n"));
        let mut ask = |commands: &str| say(&mut runner, &mut target, commands);
        assert_eq!(ask("name%"), "m-name-dut-[paradise]|m-ready|");
        assert_eq!(ask("profile%"), "m-profile-[ULPMark for tinyML Firmware V0.0.1]|m-model-[ic01]|m-ready|");
        assert_eq!(ask("db load 4%"), "m-[Expecting 4 bytes]|m-ready|");
        assert_eq!(ask("db 0a1E%"), "m-ready|");
        assert_eq!(ask("infer 1 0%"), "e-[infer: 2 of 4 bytes are loaded]|m-ready|");
        assert_eq!(ask("db 143c%"), "m-load-done|m-ready|");
        assert_eq!(ask("db print%"), "m-buffer-0a-1e-14-3c|m-ready|");
        // Two to warm up, three that are timed: 20 microseconds each.
        assert_eq!(
            ask("infer 3 2%"),
            "m-warmup-start-2|m-warmup-done|m-infer-start-3|m-lap-us-40|m-lap-us-100|m-infer-done|\
             m-results-[0.083,0.250,0.167,0.500]|m-ready|"
        );
        assert_eq!(ask("\nresults%"), "m-results-[0.083,0.250,0.167,0.500]|m-ready|");
        assert_eq!(ask("timestamp%"), "m-lap-us-100|m-ready|");
        assert!(ask("infer 2%").starts_with("m-warmup-start-10|"));
        assert!(ask("help%").ends_with("m-ready|"));
    }

    #[test]
    fn what_is_no_command_is_said_so() {
        let (mut target, mut runner) = (Four::default(), Runner::new(1));
        let mut ask = |commands: &str| say(&mut runner, &mut target, commands);
        for wrong in ["%", "nam%", "db%", "INFER 1%"] {
            let said = ask(wrong);
            assert!(said.starts_with("e-[Unknown command: ") && said.ends_with("m-ready|"), "{wrong} {said}");
        }
        for wrong in [
            "db load 0%",
            "db load 5%",
            "db load%",
            "db load -1%",
            "infer 0 1%",
            "infer 1 -1%",
            "infer 99999999999%",
            "db 0%",
            "db 0g%",
            "db 00%",
        ] {
            let said = ask(wrong);
            assert!(said.starts_with("e-[") && said.ends_with("m-ready|"), "{wrong} {said}");
        }
        assert!(ask(&(String::from("db ") + &"00".repeat(60) + "%")).starts_with("e-[Unknown"));
        assert_eq!(ask("name%"), "m-name-dut-[paradise]|m-ready|");
        ask("db load 4%db 01010101%");
        target.fault = true;
        assert!(say(&mut runner, &mut target, "infer 1 0%").contains("e-[infer: a fault is latched]"));
    }

    #[test]
    fn any_bytes_leave_it_answering() {
        let mut state = 1u64;
        for _ in 0..2000 {
            let (mut target, mut runner) = (Four::default(), Runner::<4, 4>::new(1));
            for _ in 0..200 {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                // Pieces of commands; but nothing that takes long.
                let piece =
                    [" ", "%", "db", "load", "4", "0f", "print", "infer 2 ", "results", "\u{7f}", "\r", "name"];
                piece[(state >> 60) as usize % piece.len()].bytes().for_each(|byte| runner.hear(byte, &mut target));
            }
            runner.hear(b'%', &mut target);
            assert_eq!(say(&mut runner, &mut target, "name%"), "m-name-dut-[paradise]|m-ready|");
        }
        for byte in 0..=u8::MAX {
            let (mut target, mut runner) = (Four::default(), Runner::<4, 4>::new(1));
            [byte, b'd', byte, b'%'].iter().for_each(|byte| runner.hear(*byte, &mut target));
            assert!(target.said.ends_with("m-ready\r\n"));
        }
    }
}
