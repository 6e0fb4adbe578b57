"""From a prompt and reference images to a PNG.

`prepare` turns a request into the inputs of two loops, which take one step at a time: `tokens.BatchedDecoder` and
`denoise.DenoiseState`. `batch.generate_images` runs both to the end for any number of requests.
"""
