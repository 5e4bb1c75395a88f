"""config.json as transformers writes it: what a model keeps and how much it is, by architecture.

settings reads values, families says which rule an architecture follows, layers lays a model out
layer by layer, mixers and feed_forward size one layer, encoders and towers what is no decoder, and
model adds it all up.
"""
