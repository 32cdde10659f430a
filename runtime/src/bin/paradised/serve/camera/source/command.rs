//! A program whose standard output is JPEG pictures one after the other: `rpicam-vid --codec mjpeg -o -`, or `ffmpeg` for RTSP and anything
//! else.

use super::http::pictures;
use super::{Ender, Open, Source};
use anyhow::Context;
use rustix::process::{Pid, Signal, kill_process_group};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Runs it, and what it starts, in a group that can be ended as one.
pub fn opener(program: String, arguments: Vec<String>) -> Open {
    Box::new(move || {
        let mut command = Command::new(&program);
        command.args(&arguments).stdin(Stdio::null()).stdout(Stdio::piped()).process_group(0);
        let mut child = command.spawn().with_context(|| program.clone())?;
        let output = child.stdout.take().context("it has no standard output")?;
        Ok(Box::new(Program { child, gone: Arc::default(), pictures: pictures(Box::new(output)) }))
    })
}

struct Program<S> {
    child: Child,
    /// Whether it was waited for: from then on its number may be another's.
    gone: Arc<AtomicBool>,
    pictures: S,
}

fn end(group: u32, gone: &AtomicBool) {
    let group = i32::try_from(group).ok().and_then(Pid::from_raw);
    if let Some(group) = group.filter(|_| !gone.load(Ordering::SeqCst)) {
        // It may have ended by itself.
        let _ = kill_process_group(group, Signal::KILL);
    }
}

impl<S: Source> Source for Program<S> {
    fn next(&mut self) -> anyhow::Result<Vec<u8>> {
        self.pictures.next().map_err(|why| match self.child.try_wait() {
            Ok(Some(status)) => anyhow::anyhow!("the program ended: {status}"),
            _ => why.context("its standard output"),
        })
    }

    fn ender(&self) -> Option<Ender> {
        let (group, gone) = (self.child.id(), self.gone.clone());
        Some(Arc::new(move || end(group, &gone)))
    }
}

impl<S> Drop for Program<S> {
    fn drop(&mut self) {
        end(self.child.id(), &self.gone);
        self.gone.store(true, Ordering::SeqCst);
        // It was ended; this leaves no zombie.
        let _ = self.child.wait();
    }
}
