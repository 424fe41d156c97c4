"""Reports: HTML pages and a picture about one analysis or many. The modules that draw read no file and no server."""
