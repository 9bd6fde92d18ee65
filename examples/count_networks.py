"""What networks cost, and what an argument changes: weights and multiply-accumulates."""

import leancnn

for repeat in (1, 2, 3, 4, 5):
    model = leancnn.create_model("henet_r3", classes=10, repeat=repeat)
    cost = leancnn.count(model, (3, 31, 31))
    print(f"repeat {repeat}: {cost.trainable:8,} weights  {cost.macs:12,} MACs")
