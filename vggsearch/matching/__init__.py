"""Where one picture lies in another: feature maps, keypoints, and the re-ranking that rests on them."""
