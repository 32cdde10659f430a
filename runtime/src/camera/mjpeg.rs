//! Pictures out of a stream of JPEG files one after the other, as cameras, `ffmpeg` and multipart HTTP send them. What stands between two
//! pictures - boundaries, headers, noise after a fault - is passed over.

/// Most bytes of a picture; a longer one is given up.
pub const MAX_FRAME: usize = 16 << 20;

/// Cuts a stream at the pictures' own markers (ITU-T T.81, annex B), so that a thumbnail inside a picture does not end it.
///
/// ```
/// use paradise_runtime::camera::mjpeg::Splitter;
/// let picture = [0xff, 0xd8, 0xff, 0xda, 0, 2, 7, 0xff, 0, 9, 0xff, 0xd9];
/// let mut splitter = Splitter::default();
/// let mut pictures = Vec::new();
/// for part in [b"--boundary\r\n\r\n", &picture[..], b"\r\n--boun"].concat().chunks(5) {
///     splitter.push(part, &mut |picture| pictures.push(picture));
/// }
/// assert_eq!(pictures, [picture.to_vec()]);
/// ```
#[derive(Debug, Default)]
pub struct Splitter {
    /// From a picture's first byte on.
    held: Vec<u8>,
    /// What comes next in it.
    next: Next,
    /// How many bytes of `held` were looked at.
    seen: usize,
    /// Pictures that were given up.
    lost: u64,
}

/// Where in a picture the next byte stands.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Next {
    /// Before one.
    #[default]
    Start,
    /// At a marker, or at the fill bytes before it.
    Marker,
    /// At a segment of so many bytes, its marker included.
    Segment(usize),
    /// At a segment that coded data follow.
    ScanHeader(usize),
    /// Among the coded data of a scan.
    Scan,
}

/// Whether a marker stands alone, without a segment.
fn stands_alone(marker: u8) -> bool {
    matches!(marker, 0x01 | 0xd0..=0xd8)
}

impl Splitter {
    /// Takes bytes as they come, and gives every picture that ends in them.
    pub fn push(&mut self, bytes: &[u8], give: &mut dyn FnMut(Vec<u8>)) {
        let mut bytes = bytes;
        while !bytes.is_empty() {
            let room = (MAX_FRAME - self.held.len()).min(bytes.len());
            self.held.extend_from_slice(&bytes[..room]);
            bytes = &bytes[room..];
            self.look(give);
            if self.held.len() == MAX_FRAME {
                self.give_up();
            }
        }
    }

    /// Pictures that were given up, because they were too long or not as pictures are.
    pub fn lost(&self) -> u64 {
        self.lost
    }

    /// Begins anew behind the first bytes of what is held, which began no picture.
    fn give_up(&mut self) {
        self.lost += 1;
        self.held.drain(..2.min(self.held.len()));
        (self.seen, self.next) = (0, Next::Start);
        if self.held.len() + 2 >= MAX_FRAME {
            self.held.clear();
        }
    }

    /// Looks at what has not been looked at.
    fn look(&mut self, give: &mut dyn FnMut(Vec<u8>)) {
        loop {
            let left = &self.held[self.seen..];
            match self.next {
                Next::Start => {
                    let Some(at) = left.windows(2).position(|pair| pair == [0xff, 0xd8]) else {
                        // The last byte may be the first half of it.
                        let keep = usize::from(left.last() == Some(&0xff));
                        self.held.drain(..self.held.len() - keep);
                        self.seen = 0;
                        return;
                    };
                    self.held.drain(..self.seen + at);
                    (self.seen, self.next) = (2, Next::Marker);
                }
                Next::Marker => match left {
                    [0xff, 0xff, ..] => self.seen += 1,
                    [0xff, 0xd9, ..] => {
                        let rest = self.held.split_off(self.seen + 2);
                        give(std::mem::replace(&mut self.held, rest));
                        (self.seen, self.next) = (0, Next::Start);
                    }
                    [0xff, marker, ..] if stands_alone(*marker) => self.seen += 2,
                    [0xff, 0, ..] => self.give_up(),
                    [0xff, marker, high, low, ..] => {
                        let length = usize::from(u16::from_be_bytes([*high, *low]));
                        match (*marker, length) {
                            (_, 0 | 1) => self.give_up(),
                            (0xda, _) => self.next = Next::ScanHeader(length + 2),
                            _ => self.next = Next::Segment(length + 2),
                        }
                    }
                    [0xff, ..] | [] if left.len() < 4 => return,
                    _ => self.give_up(),
                },
                Next::Segment(length) | Next::ScanHeader(length) => {
                    if left.len() < length {
                        return;
                    }
                    self.seen += length;
                    self.next = if let Next::Segment(_) = self.next { Next::Marker } else { Next::Scan };
                }
                Next::Scan => {
                    // A byte of ones in the data is followed by 0, or by a restart.
                    let at = left.windows(2).position(|p| p[0] == 0xff && !matches!(p[1], 0 | 0xd0..=0xd7 | 0xff));
                    let Some(at) = at else {
                        self.seen += left.len().saturating_sub(1);
                        return;
                    };
                    self.seen += at;
                    self.next = Next::Marker;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A picture of noise with a thumbnail, a picture of its own, in a segment.
    fn picture(seed: u8, len: usize) -> Vec<u8> {
        let mut rng = fastrand::Rng::with_seed(seed.into());
        let thumbnail = [&[0xff, 0xd8, 0xff, 0xda, 0, 2][..], &[seed; 20], &[0xff, 0xd9]].concat();
        let mut bytes = vec![0xff, 0xd8, 0xff, 0xe1];
        bytes.extend((thumbnail.len() as u16 + 2).to_be_bytes());
        bytes.extend(thumbnail);
        // Fill bytes stand before a marker, restarts in the data.
        bytes.extend([0xff, 0xff, 0xff, 0xda, 0, 8, 1, 1, 0, 0, 63, 0]);
        for _ in 0..len {
            match rng.u8(..) {
                0xff => bytes.extend([0xff, [0, 0xd3][rng.usize(..2)]]),
                value => bytes.push(value),
            }
        }
        bytes.extend([0xff, 0xd9]);
        bytes
    }

    fn split(stream: &[u8], chunk: usize) -> (Vec<Vec<u8>>, u64) {
        let (mut splitter, mut pictures) = (Splitter::default(), Vec::new());
        stream.chunks(chunk).for_each(|part| splitter.push(part, &mut |picture| pictures.push(picture)));
        (pictures, splitter.lost())
    }

    #[test]
    fn however_a_stream_is_cut_its_pictures_come_whole() {
        let pictures: Vec<Vec<u8>> = (0..5).map(|k| picture(k, 300 + 70 * usize::from(k))).collect();
        let between = b"\r\n--frame\r\nContent-Type: image/jpeg\r\nContent-Length: 5\r\n\r\n";
        let stream: Vec<u8> = pictures.iter().flat_map(|picture| [&between[..], picture].concat()).collect();
        for chunk in (1..40).chain([100, 1000, usize::MAX]) {
            assert_eq!(split(&stream, chunk), (pictures.clone(), 0), "{chunk}");
        }
    }

    #[test]
    fn after_a_fault_the_next_picture_comes() {
        let (first, second) = (picture(1, 400), picture(2, 400));
        for cut in [3, 5, 20, 60, 200] {
            let stream = [&first[..cut], &second, &first].concat();
            let (got, _) = split(&stream, 7);
            assert_eq!(got.last(), Some(&first), "cut at {cut}");
        }
        let noise: Vec<u8> = (0..100_000u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
        assert_eq!(split(&[&noise[..], &first, &second].concat(), 4096).0.last(), Some(&second));
    }

    #[test]
    fn a_picture_without_an_end_is_given_up() {
        let (mut splitter, mut pictures) = (Splitter::default(), Vec::new());
        let mut give = |picture| pictures.push(picture);
        splitter.push(&[0xff, 0xd8, 0xff, 0xda, 0, 2], &mut give);
        for _ in 0..40 {
            splitter.push(&[7; 1 << 20], &mut give);
            assert!(splitter.held.len() <= MAX_FRAME);
        }
        let whole = picture(3, 50);
        splitter.push(&whole, &mut give);
        assert_eq!(pictures, [whole]);
        assert!(splitter.lost() > 0);
    }
}
