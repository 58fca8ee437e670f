//! The demo's pictures: the plate to heat, and the result in colours.
//!
//! Invariant: what comes from a file is checked before it is used: size, depth and length.

use std::fs::File;
use std::io::BufWriter;
use std::path::Path;

use crate::error::Error;

/// A picture of one brightness per point, 0 to 255.
#[derive(Debug, PartialEq, Eq)]
pub struct Grey {
    /// Points in a row.
    pub width: usize,
    /// Rows.
    pub height: usize,
    /// Row by row.
    pub points: Vec<u8>,
}

/// The letters on the plate: a row of bits a line, seven wide.
const LETTERS: [[u8; 9]; 3] = [
    [0b0111110, 0b1100011, 0b1100000, 0b1100000, 0b0111110, 0b0000011, 0b0000011, 0b1100011, 0b0111110],
    [0b0111110, 0b1100011, 0b1100000, 0b1100000, 0b0111110, 0b0000011, 0b0000011, 0b1100011, 0b0111110],
    [0b0111110, 0b0011100, 0b0011100, 0b0011100, 0b0011100, 0b0011100, 0b0011100, 0b0011100, 0b0111110],
];

/// Neither a heater nor a heat sink: `heat` keeps white and black points as they are.
const LUKEWARM: u8 = 40;

impl Grey {
    /// A lukewarm plate with hot letters and a cold left edge.
    pub fn plate(width: usize, height: usize) -> Self {
        let mut plate = Self { width, height, points: vec![LUKEWARM; width * height] };
        plate.points.chunks_mut(width).for_each(|row| row[0] = 0);
        // 3 letters of 7 cells, 2 between them, 3 at each side; 9 cells high, 3 above and below.
        let cell = (width / 31).min(height / 15).max(1);
        for (at, letter) in LETTERS.iter().enumerate() {
            for (row, bits) in letter.iter().enumerate() {
                for column in (0..7).filter(|column| bits >> (6 - column) & 1 == 1) {
                    plate.heat_cell((3 + at * 9 + column) * cell, (3 + row) * cell, cell);
                }
            }
        }
        plate
    }

    fn heat_cell(&mut self, left: usize, top: usize, size: usize) {
        for y in top..(top + size).min(self.height) {
            let row = &mut self.points[y * self.width..(y + 1) * self.width];
            let (from, to) = (left.min(row.len()), (left + size).min(row.len()));
            row[from..to].fill(255);
        }
    }

    /// As a binary PGM file.
    pub fn to_pgm(&self) -> Vec<u8> {
        let mut file = format!("P5\n{} {}\n255\n", self.width, self.height).into_bytes();
        file.extend(&self.points);
        file
    }

    /// From a PGM file, binary (P5) or plain (P2), of up to 65,535 levels.
    pub fn from_pgm(file: &[u8]) -> Result<Self, Error> {
        let bad = |why: &str| Error::check(format!("the picture must be a PGM file, but {why}"), shown(file));
        let mut rest = file;
        let magic = word(&mut rest).ok_or_else(|| bad("it is empty"))?;
        let mut number =
            |what| word(&mut rest).and_then(|word| word.parse::<usize>().ok()).ok_or_else(|| bad(what));
        let width = number("it tells no width")?;
        let height = number("it tells no height")?;
        let levels = number("it tells no depth")?;
        let count = width.checked_mul(height).filter(|count| (1..=1 << 28).contains(count));
        let count = count.ok_or_else(|| bad("its size makes no sense"))?;
        if !(1..=65_535).contains(&levels) {
            return Err(bad("its depth makes no sense"));
        }
        let scaled = |value: usize| u8::try_from(value.min(levels) * 255 / levels).unwrap_or(255);
        let points: Vec<u8> = match (magic.as_str(), levels) {
            // One white byte ends the header; `word` has taken it.
            ("P5", ..=255) => rest.iter().take(count).map(|byte| scaled(usize::from(*byte))).collect(),
            ("P5", _) => {
                let pairs = rest.chunks_exact(2).take(count);
                pairs.map(|pair| scaled(usize::from(u16::from_be_bytes([pair[0], pair[1]])))).collect()
            }
            ("P2", _) => {
                std::iter::from_fn(|| word(&mut rest)?.parse().ok()).take(count).map(scaled).collect()
            }
            _ => return Err(bad("it is of another kind")),
        };
        if points.len() < count {
            return Err(bad("it ends too early"));
        }
        Ok(Self { width, height, points })
    }

    /// The sum that `heat` prints: of the points, weighted by their place.
    pub fn heat_checksum(&self) -> u64 {
        let weighted =
            (0u64..).zip(&self.points).map(|(place, point)| u64::from(*point) * (place % 65_521 + 1));
        weighted.fold(0, u64::wrapping_add)
    }

    /// Writes it as a PNG file in the colours of glowing iron.
    pub fn write_png(&self, path: &Path) -> Result<(), Error> {
        let what = format!("write {}", path.display());
        let file = File::create(path).map_err(Error::io(&what))?;
        let (width, height) = (u32::try_from(self.width), u32::try_from(self.height));
        let (Ok(width), Ok(height)) = (width, height) else {
            return Err(Error::check("the picture must be of a size that PNG knows", what));
        };
        let mut encoder = png::Encoder::new(BufWriter::new(file), width, height);
        encoder.set_color(png::ColorType::Rgb);
        encoder.set_depth(png::BitDepth::Eight);
        let colours: Vec<u8> = self.points.iter().flat_map(|point| glow(*point)).collect();
        let written = encoder.write_header().and_then(|mut writer| {
            writer.write_image_data(&colours)?;
            writer.finish()
        });
        written.map_err(|error| Error::io(&what)(std::io::Error::other(error)))
    }
}

/// Black, red, yellow, white.
fn glow(heat: u8) -> [u8; 3] {
    let third = |from: u32| u8::try_from((u32::from(heat) * 3).saturating_sub(from).min(255)).unwrap_or(255);
    [third(0), third(255), third(510)]
}

/// The next word of a PGM header and the one white byte after it; comments go to the end of their line.
fn word(rest: &mut &[u8]) -> Option<String> {
    const WORD_BYTES_MAX: usize = 20;
    loop {
        let start = rest.iter().position(|byte| !byte.is_ascii_whitespace())?;
        *rest = &rest[start..];
        if rest[0] != b'#' {
            break;
        }
        let end = rest.iter().position(|byte| *byte == b'\n')?;
        *rest = &rest[end..];
    }
    let end = rest.iter().position(u8::is_ascii_whitespace).unwrap_or(rest.len());
    let word = rest.get(..end).filter(|word| word.len() <= WORD_BYTES_MAX)?;
    *rest = rest.get(end + 1..).unwrap_or(&[]);
    String::from_utf8(word.to_vec()).ok()
}

fn shown(file: &[u8]) -> String {
    let start = String::from_utf8_lossy(&file[..file.len().min(40)]).escape_debug().to_string();
    format!("{} bytes: {start}", file.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plate_comes_back_from_its_file() {
        let plate = Grey::plate(310, 150);
        let hot = plate.points.iter().filter(|point| **point == 255).count();
        assert!(hot > 310 * 150 / 20 && hot < 310 * 150 / 2, "{hot} hot points");
        assert_eq!(Grey::from_pgm(&plate.to_pgm()).unwrap(), plate);
    }

    #[test]
    fn the_checksum_weighs_points_by_their_place() {
        let picture = Grey { width: 3, height: 1, points: vec![1, 0, 2] };
        assert_eq!(picture.heat_checksum(), 1 + 2 * 3);
    }

    #[test]
    fn plain_deep_and_commented_files_are_read() {
        let plain = Grey::from_pgm(b"P2 # plain\n# size\n2 2\n100\n0 50\n100 25\n").unwrap();
        assert_eq!(plain.points, [0, 127, 255, 63]);
        let deep = Grey::from_pgm(b"P5 1 2 65535\n\xff\xff\x80\x00").unwrap();
        assert_eq!(deep.points, [255, 127]);
    }

    #[test]
    fn what_is_no_picture_is_refused() {
        let files: [&[u8]; 8] = [
            b"",
            b"P5",
            b"P6 1 1 255\nabc",
            b"P5 2 2 255\nabc",
            b"P5 0 2 255\n",
            b"P5 99999999 99999999 255\n",
            b"P5 1 1 0\na",
            b"P2 2 1 9\n1 x\n",
        ];
        for file in files {
            assert!(Grey::from_pgm(file).is_err(), "{:?}", String::from_utf8_lossy(file));
        }
    }

    #[test]
    fn colours_go_from_black_to_white() {
        assert_eq!((glow(0), glow(255)), ([0, 0, 0], [255, 255, 255]));
        assert_eq!(glow(85), [255, 0, 0]);
    }
}
