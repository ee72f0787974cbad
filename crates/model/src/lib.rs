//! EarthMapper: one model that translates satellite images into map tiles and map tiles into satellite images.
