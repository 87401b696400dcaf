//! PAM (`P7`), the form in which sources hand out raw pixels: a header of text, then one byte a channel.
//!
//! Source: <https://netpbm.sourceforge.net/doc/pam.html>.

use super::ImageError;

/// An image in memory.
pub(super) struct Pam<'a> {
    pub size: [u32; 2],
    pub grey: bool,
    pixels: &'a [u8],
}

impl<'a> Pam<'a> {
    /// Reads the header of an image of one or three channels with values up to 255.
    pub fn open(bytes: &'a [u8]) -> Result<Self, ImageError> {
        let bad = |reason: &str| ImageError::Undecodable(format!("PAM: {reason}"));
        let [mut width, mut height, mut depth, mut most] = [0_u32; 4];
        let mut rest = bytes.strip_prefix(b"P7\n").unwrap_or_default();
        loop {
            let end = rest.iter().position(|&byte| byte == b'\n');
            let (line, after) = rest.split_at(end.ok_or_else(|| bad("ends in its header"))?);
            rest = &after[1..];
            let line = std::str::from_utf8(line).map_err(|_| bad("its header is not text"))?;
            let (key, value) = line.split_once(' ').unwrap_or((line, ""));
            let field = match key {
                "ENDHDR" => break,
                "WIDTH" => &mut width,
                "HEIGHT" => &mut height,
                "DEPTH" => &mut depth,
                "MAXVAL" => &mut most,
                _ => continue,
            };
            *field = value
                .trim()
                .parse()
                .map_err(|_| bad("its header has a number of no meaning"))?;
        }
        if width == 0 || height == 0 || most != 255 || !matches!(depth, 1 | 3) {
            return Err(bad(&format!(
                "{width} x {height} x {depth} with values up to {most}, expected 1 or 3 channels up to 255"
            )));
        }
        Ok(Self {
            size: [width, height],
            grey: depth == 1,
            pixels: rest,
        })
    }

    /// Writes the pixels to `rgbx`, four bytes each.
    pub fn decode(&self, rgbx: &mut Vec<u8>) -> Result<(), ImageError> {
        let [width, height] = self.size.map(u64::from);
        let needed = width * height * if self.grey { 1 } else { 3 };
        let pixels = usize::try_from(needed)
            .ok()
            .and_then(|len| self.pixels.get(..len));
        let pixels = pixels.ok_or_else(|| {
            let got = self.pixels.len();
            ImageError::Undecodable(format!("PAM: {got} bytes of pixels, expected {needed}"))
        })?;
        rgbx.clear();
        if self.grey {
            rgbx.extend(pixels.iter().flat_map(|&grey| [grey, grey, grey, 0]));
        } else {
            let (pixels, _) = pixels.as_chunks::<3>();
            let quads = pixels
                .iter()
                .flat_map(|&[red, green, blue]| [red, green, blue, 0]);
            rgbx.extend(quads);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pixels_of_both_kinds_are_read_and_cut_files_are_errors() {
        let mut rgbx = Vec::new();
        let colour = b"P7\nWIDTH 2\nHEIGHT 1\nDEPTH 3\nMAXVAL 255\nTUPLTYPE RGB\nENDHDR\nabcdef";
        Pam::open(colour).unwrap().decode(&mut rgbx).unwrap();
        assert_eq!(rgbx, b"abc\0def\0");
        let grey = b"P7\nWIDTH 1\nHEIGHT 1\nDEPTH 1\nMAXVAL 255\nENDHDR\na";
        Pam::open(grey).unwrap().decode(&mut rgbx).unwrap();
        assert_eq!(rgbx, b"aaa\0");
        for end in 0..colour.len() {
            let read = Pam::open(&colour[..end]).and_then(|image| image.decode(&mut rgbx));
            assert!(read.is_err(), "cut to {end} bytes");
        }
    }
}
