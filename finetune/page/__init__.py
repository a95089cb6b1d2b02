"""HTML pages that open from a disk: templates, their content security policy, thumbnails, SVG charts."""
