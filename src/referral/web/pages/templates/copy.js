const button = document.getElementById("copy");
button.hidden = false;
button.addEventListener("click", async () => {
  await navigator.clipboard.writeText(button.value);
  document.getElementById("copied").textContent = button.dataset.copied;
});
