"""Rows and samples in: feature files, images, texts, splits. Import the modules: this face is empty.

`row_files` reads feature rows of .csv, .tsv, .parquet, .npz, .npy, .safetensors and store folders, `logit_files`
the logits of another model, `samples.formats` images and texts. All formats with the same content give the same
values, bit for bit.
"""
