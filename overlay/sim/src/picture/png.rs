//! An SVG as pixels, with faces of its own: the system's may be none.

use std::sync::Arc;

use resvg::tiny_skia::{Pixmap, Transform};
use resvg::usvg;

/// The faces that a picture asks for. Viewers without the first take another.
pub(super) const FONT: &str = "Noto Sans, sans-serif";
/// Pixels for each unit of the SVG: letters stay sharp on screens of today.
const SCALE: f32 = 1.5;

/// Why an SVG cannot be turned into pixels.
#[derive(Debug, thiserror::Error)]
pub enum PngError {
    /// It is none.
    #[error("cannot read the picture: {0}")]
    Svg(#[from] usvg::Error),
    /// It is too large.
    #[error("a picture of {0} by {1} pixels is too large; write it as .svg")]
    Size(u32, u32),
    /// The pixels cannot be packed.
    #[error("cannot encode the picture: {0}")]
    Encode(String),
}

/// Draws `svg`, and packs it as PNG.
pub(super) fn render(svg: &str) -> Result<Vec<u8>, PngError> {
    let mut options = usvg::Options::default();
    let fonts = Arc::make_mut(&mut options.fontdb);
    fonts.load_font_data(notosans::REGULAR_TTF.to_vec());
    fonts.load_font_data(notosans::BOLD_TTF.to_vec());
    let tree = usvg::Tree::from_str(svg, &options)?;
    let pixels = |length: f32| (length * SCALE).ceil() as u32;
    let (wide, tall) = (pixels(tree.size().width()), pixels(tree.size().height()));
    let mut pixmap = Pixmap::new(wide, tall).ok_or(PngError::Size(wide, tall))?;
    let scale = Transform::from_scale(SCALE, SCALE);
    resvg::render(&tree, scale, &mut pixmap.as_mut());
    let packed = pixmap.encode_png();
    packed.map_err(|error| PngError::Encode(error.to_string()))
}
