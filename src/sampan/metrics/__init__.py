"""What a picture is worth: words read in it, colours named, likeness to a true one. Pictures in, numbers out."""
