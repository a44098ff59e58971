// The review screen: renewing the reservation, the draft kept in this browser, the live word diff.
