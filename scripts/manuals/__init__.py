"""The manual pages, made from what the code knows of commands, files and documents."""
