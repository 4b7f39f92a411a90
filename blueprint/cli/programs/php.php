<?php
$nonce = trim(fgets(STDIN));
echo strrev($nonce), " ", hash("fnv1a32", $nonce . "php"), "\n";
