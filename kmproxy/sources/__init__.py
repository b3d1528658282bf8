"""Where expositions come from: kubelets, directly or through the API server's node proxy.

Knows URLs and what a whole answer is. Must not know what is done to it.

    endpoints      what is fetched from a kubelet
    kubelet_trust  by what a kubelet's certificate is verified
    kubelet        fetches from kubelets
    slots          how many fetches are under way at once
"""
